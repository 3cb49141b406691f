package main

import (
	"bufio"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/plyfs/plyfs/cmd/opening"
	"github.com/plyfs/plyfs/internal/doctor"
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "look at what the machine has of that which plyfs needs",
		Long: `doctor looks at the device, the helper programs, user namespaces, subordinate
IDs, the kernel's overlay, the store's filesystem, and mounts whose server is
gone. It prints a line for each: ok, warn or fail, and what to do. It changes
nothing. The exit status is 1 when something fails.`,
		Example: "  plyfs doctor", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			conf, err := opening.Config(opening.Options{Flags: a.flags, Strict: true, RootFlag: "--root", Log: a.log})
			if err != nil {
				return err
			}
			out := bufio.NewWriter(a.out)
			failed := false
			for _, f := range doctor.Here(conf.GraphRoot.Text).Examine() {
				failed = failed || f.Grade == doctor.Fail
				fmt.Fprintf(out, "%-4s %s: %s\n", f.Grade, f.What, f.Text)
			}
			if err := out.Flush(); err != nil {
				return err
			}
			if failed {
				return exitStatus(1)
			}
			return nil
		},
	}
}
