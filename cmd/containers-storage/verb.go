package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// verb is one command.
type verb struct {
	name    string
	aliases []string
	// args are the arguments in the usage line; least of them are wanted, and
	// at most most, or any number when that is below zero: further ones are
	// ignored by verbs that want one, as the peers do.
	args        string
	least, most int
	short       string
	// long says what short does not; example is one or more command lines.
	long, example string
	flags         func(*pflag.FlagSet)
	// values are what flags are completed with.
	values map[string][]string
	// json tells that there are --json and --format.
	json bool
	// complete are what the arguments are completed with, by position; the
	// last one serves those after it, too.
	complete []completer
	// bare verbs open no store.
	bare bool
	run  func(ctx context.Context, args []string) error
}

// any number of arguments.
const many = -1

// verbs is the table of all verbs, in the order of the usage text.
func (a *app) verbs() []*verb {
	var all []*verb
	for _, some := range [][]*verb{
		a.layerVerbs(), a.imageVerbs(), a.containerVerbs(), a.deleteVerbs(), a.diffVerbs(), a.dataVerbs(),
		a.nameVerbs(), a.mountVerbs(), a.storeVerbs(),
	} {
		all = append(all, some...)
	}
	return all
}

// command makes the cobra command of a verb.
func (a *app) command(v *verb) *cobra.Command {
	cmd := &cobra.Command{
		Use:     v.name,
		Aliases: v.aliases,
		Short:   v.short,
		Long:    v.short + ".",
		Example: v.example,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.checkArgs(cmd, v, args); err != nil {
				return err
			}
			if inside, err := a.runInside(cmd.Context(), v); inside || err != nil {
				return err
			}
			if !v.bare {
				if err := a.open(cmd.Context()); err != nil {
					return err
				}
			}
			return v.run(cmd.Context(), args)
		},
		ValidArgsFunction:     a.completion(v),
		DisableFlagsInUseLine: true,
	}
	if v.args != "" {
		cmd.Use += " " + v.args
	}
	if v.long != "" {
		cmd.Long += "\n\n" + v.long
	}
	if v.json {
		a.output.addTo(cmd.Flags())
	}
	if v.flags != nil {
		v.flags(cmd.Flags())
	}
	a.completeValues(cmd, v.values)
	return cmd
}

// checkArgs refuses too few and too many arguments in the peers' words, which
// go to standard output.
func (a *app) checkArgs(cmd *cobra.Command, v *verb, args []string) error {
	switch {
	case len(args) < v.least:
		fmt.Fprintf(a.out, "%s: more arguments required.\n", cmd.CalledAs())
	case v.most >= 0 && len(args) > v.most:
		fmt.Fprintf(a.out, "%s: too many arguments (%v).\n", cmd.CalledAs(), args)
	default:
		return nil
	}
	a.usage(cmd)
	return failed
}
