// This is a stand-in for the official pulumi-resource-command v1.2.1, for where no plugin can be downloaded.
//
// Like the official one it is made with pulumi-go-provider and golang.org/x/crypto/ssh, so the schema, the diffs, the
// state and the errors of the SSH client come from the same libraries: a stack made with one goes on with the other.
// It has command:remote:Command and command:local:Command, and none of the official one's other resources and functions.
package main

import (
	"context"
	"fmt"
	"os"

	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi-go-provider/infer"
	"github.com/pulumi/pulumi-go-provider/middleware/schema"

	"sftp-jail/toolchain/command_plugin/local"
	"sftp-jail/toolchain/command_plugin/remote"
)

// version is the official plugin's; the build sets it from the one place where it is written down.
var version = "0.0.0"

func main() {
	provider := infer.Provider(infer.Options{
		Metadata:  schema.Metadata{DisplayName: "Command"},
		Resources: []infer.InferredResource{infer.Resource(&remote.Command{}), infer.Resource(&local.Command{})},
	})
	if err := p.RunProvider(context.Background(), "command", version, provider); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
