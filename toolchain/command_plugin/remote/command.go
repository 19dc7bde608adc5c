// Package remote runs commands on a server, over SSH.
package remote

import (
	"context"
	"fmt"
	"strings"

	p "github.com/pulumi/pulumi-go-provider"
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
	Stdin                  *string           `pulumi:"stdin,optional"`
	Logging                *Logging          `pulumi:"logging,optional"`
	Connection             *Connection       `pulumi:"connection" provider:"secret"`
	Environment            map[string]string `pulumi:"environment,optional"`
	AddPreviousOutputInEnv *bool             `pulumi:"addPreviousOutputInEnv,optional"`
}

// Annotate describes the fields in the schema.
func (in *CommandInputs) Annotate(a infer.Annotator) {
	a.Describe(&in.Stdin, "What the command reads from its standard input.")
	a.Describe(&in.Logging, "Which output is shown while the command runs; both are, without it.")
	a.Describe(&in.Connection, "The server, and how to log in to it.")
	a.Describe(&in.Environment, "Environment variables; the server's AcceptEnv must let them in.")
	a.Describe(&in.AddPreviousOutputInEnv, "Whether PULUMI_COMMAND_STDOUT and _STDERR hold the previous command's output.")
	a.SetDefault(&in.AddPreviousOutputInEnv, true)
}

// CommandOutputs is the state of a Command.
type CommandOutputs struct {
	CommandInputs
	command.Outputs
}

// Command is the resource.
type Command struct{}

// Annotate describes the resource in the schema.
func (c *Command) Annotate(a infer.Annotator) {
	a.Describe(&c, "A command that runs on a server, over SSH.")
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
	state := CommandOutputs{CommandInputs: req.Inputs, Outputs: req.State.Outputs}
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
	client, err := state.Connection.dial(ctx)
	if err != nil {
		return err
	}
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	defer func() { _ = session.Close() }()

	for name, value := range state.Environment {
		if err := session.Setenv(name, value); err != nil {
			p.GetLogger(ctx).Error(refused(name))
			return fmt.Errorf("could not set environment variable %q: %w", name, err)
		}
	}
	for name, value := range command.PreviousOutputs(state.AddPreviousOutputInEnv, state.Outputs) {
		// Nobody asked for these, so it is no error if the server does not want them.
		if err := session.Setenv(name, value); err != nil {
			p.GetLogger(ctx).Warning(refused(name))
		}
	}
	if state.Stdin != nil && *state.Stdin != "" {
		session.Stdin = strings.NewReader(*state.Stdin)
	}
	capture := command.NewCapture(ctx, (*string)(state.Logging))
	session.Stdout, session.Stderr = capture.Stdout, capture.Stderr
	outputs, err := capture.Close(*line, session.Run(*line))
	if err == nil {
		state.Outputs = outputs
	}
	return err
}

func refused(variable string) string {
	return fmt.Sprintf("Unable to set '%s': the server's AcceptEnv does not let it in. Set it in the command itself, "+
		"as in 'VAR=value command'.", variable)
}
