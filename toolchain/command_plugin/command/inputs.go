// Package command is what a remote and a local Command have in common.
package command

import (
	"github.com/pulumi/pulumi-go-provider/infer"
)

// Inputs are the commands of a resource's life. Another value in Triggers replaces the resource.
type Inputs struct {
	Triggers *[]any  `pulumi:"triggers,optional" provider:"replaceOnChanges"`
	Create   *string `pulumi:"create,optional"`
	Update   *string `pulumi:"update,optional"`
	Delete   *string `pulumi:"delete,optional"`
}

// Annotate describes the fields in the schema.
func (in *Inputs) Annotate(a infer.Annotator) {
	a.Describe(&in.Triggers, "Values of any type; if one of them changes, the resource is replaced.")
	a.Describe(&in.Create, "What to run when the resource is created.")
	a.Describe(&in.Update, "What to run when an input changes; without it, create runs again.")
	a.Describe(&in.Delete, "What to run when the resource is deleted.")
}

// OnUpdate is the command for a change of inputs; nil if there is nothing to run.
func (in *Inputs) OnUpdate() *string {
	if in.Update != nil {
		return in.Update
	}
	return in.Create
}

// Outputs are what the last command wrote, without the newline at the very end.
type Outputs struct {
	Stdout string `pulumi:"stdout"`
	Stderr string `pulumi:"stderr"`
}

// Annotate describes the fields in the schema.
func (out *Outputs) Annotate(a infer.Annotator) {
	a.Describe(&out.Stdout, "What the last command wrote to its standard output.")
	a.Describe(&out.Stderr, "What the last command wrote to its standard error.")
}

// PreviousOutputs is what the environment tells a command about the one before it; an empty output is not told.
func PreviousOutputs(add *bool, out Outputs) map[string]string {
	variables := map[string]string{}
	if add != nil && !*add {
		return variables
	}
	if out.Stdout != "" {
		variables["PULUMI_COMMAND_STDOUT"] = out.Stdout
	}
	if out.Stderr != "" {
		variables["PULUMI_COMMAND_STDERR"] = out.Stderr
	}
	return variables
}
