// Package local runs commands on the computer that Pulumi runs on.
package local

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/pulumi/pulumi-go-provider/infer"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"sftp-jail/toolchain/command_plugin/command"
)

// Logging says which output is shown while a command runs.
type Logging string

// Values are the enum's, for the schema.
func (Logging) Values() []infer.EnumValue[Logging] { return command.LoggingValues[Logging]() }

// CommandInputs are the inputs of a Command.
type CommandInputs struct {
	command.Inputs
	Interpreter            *[]string          `pulumi:"interpreter,optional"`
	Dir                    *string            `pulumi:"dir,optional"`
	Environment            *map[string]string `pulumi:"environment,optional"`
	Stdin                  *string            `pulumi:"stdin,optional"`
	Logging                *Logging           `pulumi:"logging,optional"`
	AssetPaths             *[]string          `pulumi:"assetPaths,optional"`
	ArchivePaths           *[]string          `pulumi:"archivePaths,optional"`
	AddPreviousOutputInEnv *bool              `pulumi:"addPreviousOutputInEnv,optional"`
}

// Annotate describes the fields in the schema.
func (in *CommandInputs) Annotate(a infer.Annotator) {
	a.Describe(&in.Interpreter, "The program, with its arguments, that the command is the last argument of: /bin/sh -c.")
	a.Describe(&in.Dir, "The directory to run the command in; it must exist.")
	a.Describe(&in.Environment, "Environment variables, beside those of the Pulumi engine.")
	a.Describe(&in.Stdin, "What the command reads from its standard input.")
	a.Describe(&in.Logging, "Which output is shown while the command runs; both are, without it.")
	a.Describe(&in.AssetPaths, "Globs of the files to return in assets; a glob after ! takes files out again.")
	a.Describe(&in.ArchivePaths, "Globs of the files to return in archive; a glob after ! takes files out again.")
	a.Describe(&in.AddPreviousOutputInEnv, "Whether PULUMI_COMMAND_STDOUT and _STDERR hold the previous command's output.")
	a.SetDefault(&in.AddPreviousOutputInEnv, true)
}

// CommandOutputs is the state of a Command.
type CommandOutputs struct {
	CommandInputs
	command.Outputs
	Assets  *map[string]*resource.Asset `pulumi:"assets,optional"`
	Archive *resource.Archive           `pulumi:"archive,optional"`
}

// Annotate describes the fields in the schema.
func (out *CommandOutputs) Annotate(a infer.Annotator) {
	a.Describe(&out.Assets, "The files that assetPaths names, by their paths in dir.")
	a.Describe(&out.Archive, "The files that archivePaths names.")
}

// Command is the resource.
type Command struct{}

// Annotate describes the resource in the schema.
func (c *Command) Annotate(a infer.Annotator) {
	a.Describe(&c, "A command that runs on the computer that Pulumi runs on.")
}

// Create runs the create command.
func (*Command) Create(
	ctx context.Context, req infer.CreateRequest[CommandInputs],
) (infer.CreateResponse[CommandOutputs], error) {
	state := CommandOutputs{CommandInputs: req.Inputs}
	id, err := resource.NewUniqueHex(req.Name, 8, 0)
	if err == nil && !req.DryRun {
		err = state.run(ctx, state.Create)
	}
	return infer.CreateResponse[CommandOutputs]{ID: id, Output: state}, err
}

// Update runs the update command, or the create command again.
func (*Command) Update(
	ctx context.Context, req infer.UpdateRequest[CommandInputs, CommandOutputs],
) (infer.UpdateResponse[CommandOutputs], error) {
	state := req.State
	state.CommandInputs = req.Inputs
	var err error
	if !req.DryRun {
		err = state.run(ctx, state.OnUpdate())
	}
	return infer.UpdateResponse[CommandOutputs]{Output: state}, err
}

// Delete runs the delete command with the inputs that are in the state.
func (*Command) Delete(ctx context.Context, req infer.DeleteRequest[CommandOutputs]) (infer.DeleteResponse, error) {
	return infer.DeleteResponse{}, req.State.run(ctx, req.State.Delete)
}

func (state *CommandOutputs) run(ctx context.Context, line *string) error {
	if line == nil {
		return nil
	}
	argv := interpreter(state.Interpreter)
	process := exec.CommandContext(ctx, argv[0], append(argv[1:], *line)...)
	var err error
	if state.Dir != nil {
		process.Dir = *state.Dir
	} else if process.Dir, err = os.Getwd(); err != nil {
		return err
	}
	process.Env = os.Environ()
	if state.Environment != nil {
		process.Env = append(process.Env, assignments(*state.Environment)...)
	}
	process.Env = append(process.Env, assignments(command.PreviousOutputs(state.AddPreviousOutputInEnv, state.Outputs))...)
	if state.Stdin != nil && *state.Stdin != "" {
		process.Stdin = strings.NewReader(*state.Stdin)
	}
	capture := command.NewCapture(ctx, (*string)(state.Logging))
	process.Stdout, process.Stderr = capture.Stdout, capture.Stderr
	outputs, err := capture.Close(*line, process.Run())
	if err != nil {
		return err
	}
	if err := state.collect(process.Dir); err != nil {
		return err
	}
	state.Outputs = outputs
	return nil
}

func interpreter(asked *[]string) []string {
	if asked != nil && len(*asked) > 0 {
		return append([]string{}, *asked...)
	}
	if runtime.GOOS == "windows" {
		return []string{"cmd", "/C"}
	}
	return []string{"/bin/sh", "-c"}
}

func assignments(variables map[string]string) []string {
	lines := []string{}
	for name, value := range variables {
		lines = append(lines, name+"="+value)
	}
	return lines
}
