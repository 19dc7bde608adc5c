"""A stand-in for the `aws` resource plugin of Pulumi, for AWS APIs on this computer; `main` says more."""
