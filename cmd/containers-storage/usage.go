package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usage prints the short form that goes with a mistake.
func (a *app) usage(cmd *cobra.Command) {
	var b strings.Builder
	if cmd.HasParent() {
		fmt.Fprintf(&b, "Usage: %s %s\n\n%s\n", program, useLine(cmd), cmd.Short)
	} else {
		fmt.Fprintf(&b, "Usage: %s command [options [...]]\n\nCommands:\n\n", program)
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(&b, "  %-28s  %s\n", c.Name(), c.Short)
			}
		}
	}
	fmt.Fprintf(&b, "\nOptions:\n\n%s", cmd.LocalFlags().FlagUsages())
	if cmd.HasParent() {
		b.WriteString(cmd.InheritedFlags().FlagUsages())
	}
	fmt.Fprint(a.out, b.String())
}

func useLine(cmd *cobra.Command) string {
	name, args, _ := strings.Cut(cmd.Use, " ")
	return strings.TrimSuffix(name+" [options [...]] "+args, " ")
}

// help prints all there is to know of a command.
func (a *app) help(cmd *cobra.Command) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", cmd.Long)
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(&b, "Also called: %s\n\n", strings.Join(cmd.Aliases, ", "))
	}
	if cmd.Example != "" {
		fmt.Fprintf(&b, "Examples:\n\n%s\n\n", cmd.Example)
	}
	fmt.Fprint(a.out, b.String())
	if cmd.Name() == "completion" || cmd.HasParent() && cmd.Parent().Name() == "completion" {
		fmt.Fprint(a.out, cmd.UsageString())
		return
	}
	a.usage(cmd)
}

// flagError tells of a flag that cannot be parsed, in the peers' words and
// with their statuses: 125 after the verb, 1 without one.
func (a *app) flagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	if args := cmd.Flags().Args(); !cmd.HasParent() && len(args) > 0 {
		fmt.Fprintf(a.out, "%s: unrecognized command.\n", args[0])
		return failed
	}
	words := flagWords(err)
	if !cmd.HasParent() {
		fmt.Fprintf(a.err, "%s\nSee '%s --help'.\n", words, program)
		fmt.Fprintf(a.out, "%s while parsing arguments (1)\n", words)
		a.usage(cmd)
		return failed
	}
	fmt.Fprintf(a.err, "%s\nSee '%s %s --help'.\n", words, program, cmd.CalledAs())
	return exitStatus(125)
}

// flagWords translates pflag's errors.
func flagWords(err error) string {
	var none *pflag.NotExistError
	var valueless *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	var syntax *pflag.InvalidSyntaxError
	switch {
	case errors.As(err, &none):
		return "flag provided but not defined: " + asGiven(none.GetSpecifiedName(), none.GetSpecifiedShortnames())
	case errors.As(err, &valueless):
		return "flag needs an argument: " + asGiven(valueless.GetSpecifiedName(), valueless.GetSpecifiedShortnames())
	case errors.As(err, &invalid):
		kind := "value"
		if invalid.GetFlag().Value.Type() == "bool" {
			kind = "boolean value"
		}
		return fmt.Sprintf("invalid %s %q for  --%s: %v", kind, invalid.GetValue(), invalid.GetFlag().Name, invalid.Unwrap())
	case errors.As(err, &syntax):
		return "flag provided but not defined: " + syntax.GetSpecifiedFlag()
	}
	return err.Error()
}

// asGiven is the flag as the user wrote it. shorts is what was left of a group
// of one-letter flags.
func asGiven(name, shorts string) string {
	if shorts != "" {
		return "-" + shorts
	}
	return "--" + name
}
