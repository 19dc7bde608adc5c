package command

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi-go-provider/infer"
)

// The values of the input `logging`, in both packages; it says which output is shown while the command runs.
const (
	LogStdout          = "stdout"
	LogStderr          = "stderr"
	LogStdoutAndStderr = "stdoutAndStderr"
	LogNone            = "none"
)

// LoggingValues are the values of an enum `T` for the schema. Each package needs an enum of its own: the schema names
// a type after the package it is in.
func LoggingValues[T ~string]() []infer.EnumValue[T] {
	values := []infer.EnumValue[T]{}
	for _, value := range []string{LogStdout, LogStderr, LogStdoutAndStderr, LogNone} {
		values = append(values, infer.EnumValue[T]{Name: value, Value: T(value)})
	}
	return values
}

// Capture keeps what a command writes, and shows it line by line, as `logging` says, while it runs.
type Capture struct {
	Stdout, Stderr io.Writer

	mutex                sync.Mutex
	stdout, stderr, both bytes.Buffer
	shown                *io.PipeWriter
	done                 chan error
}

// NewCapture starts to show the output of a command; no logging (nil) means all of it.
func NewCapture(ctx context.Context, logging *string) *Capture {
	reader, writer := io.Pipe()
	c := &Capture{shown: writer, done: make(chan error, 1)}
	c.Stdout = stream{c, &c.stdout, logging == nil || *logging == LogStdout || *logging == LogStdoutAndStderr}
	c.Stderr = stream{c, &c.stderr, logging == nil || *logging == LogStderr || *logging == LogStdoutAndStderr}
	go func() {
		lines := bufio.NewScanner(reader)
		for lines.Scan() {
			p.GetLogger(ctx).InfoStatus(lines.Text())
		}
		_, _ = io.Copy(io.Discard, reader)
		c.done <- lines.Err()
	}()
	return c
}

// Close ends the showing. With `err`, what the command ended with, it makes the error that the user sees, with the
// command and its whole output, and never its stdin.
func (c *Capture) Close(command string, err error) (Outputs, error) {
	_ = c.shown.Close()
	shown := <-c.done
	if err != nil {
		return Outputs{}, fmt.Errorf("%w: running %q:\n%s", err, command, c.both.String())
	}
	if errors.Is(shown, bufio.ErrTooLong) {
		// The official plugin hangs for ever here. An error shows the same fault to whoever made it.
		return Outputs{}, fmt.Errorf("with logging on, the official plugin cannot take a line over 64 KiB: running %q", command)
	}
	trimmed := func(b *bytes.Buffer) string { return strings.TrimSuffix(b.String(), "\n") }
	return Outputs{Stdout: trimmed(&c.stdout), Stderr: trimmed(&c.stderr)}, shown
}

type stream struct {
	capture *Capture
	own     *bytes.Buffer
	show    bool
}

func (s stream) Write(data []byte) (int, error) {
	s.capture.mutex.Lock()
	defer s.capture.mutex.Unlock()
	s.own.Write(data)
	s.capture.both.Write(data)
	if s.show {
		return s.capture.shown.Write(data)
	}
	return len(data), nil
}
