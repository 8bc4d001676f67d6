package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/simulator"
	"github.com/twinbay/twinbay/simulator/admin"
)

// tokenCommand makes tokens that reach a part of a hub: docs/departments.md.
func tokenCommand(f *hubFlags) *cobra.Command {
	var policy, resource string
	var connection bool
	life := time.Hour
	c := &cobra.Command{
		Use:   "sas-token",
		Short: "a service's SAS token, for the whole hub or for one twin and its direct methods",
		Example: `  twinbay-sim sas-token --policy service --resource twins/vending-1/modules/coins --for 24h
  twinbay-sim sas-token --hub CONNECTION_STRING --resource twins/vending-1/modules/coins --connection-string`,
		Args: exactly(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if life <= 0 {
				return fmt.Errorf("--for %s: want a time to come; %w", life, errUsage)
			}
			hub, host, err := f.policyOf(policy)
			if err != nil {
				return err
			}
			ahead, err := f.clockOf(host)
			if err != nil {
				return err
			}
			token, err := admin.Token(hub, resource, time.Now().Add(ahead+life))
			if err != nil {
				return err
			}
			if connection {
				token = "HostName=" + host + ";SharedAccessSignature=" + token
			}
			fmt.Fprintln(c.OutOrStdout(), token)
			return nil
		},
	}
	c.Flags().StringVar(&policy, "policy", "", "shared access policy that signs (default: the connection string's)")
	c.Flags().StringVar(&resource, "resource", "", "path that the token is for, ids as they are: twins/DEVICE/modules/MODULE (default: the whole hub)")
	c.Flags().DurationVar(&life, "for", life, "how long the token holds")
	c.Flags().BoolVar(&connection, "connection-string", false, "print what --hub and HUB_CS take: the hub's name and the token")
	return c
}

// clockOf is how far a hub's clock is ahead, if it is the simulator that runs here.
func (f *hubFlags) clockOf(host string) (time.Duration, error) {
	env, err := f.env()
	if err != nil || env["HUB_HOST"] != host {
		return 0, nil // another hub; of this one policyOf needs no file
	}
	return env.ClockOffset()
}

// policyOf finds the connection string of a shared access policy, and the hub's name in it.
func (f *hubFlags) policyOf(policy string) (connection, host string, err error) {
	connection = f.connection
	if connection == "" {
		env, err := f.env()
		if err != nil {
			return "", "", err
		}
		connection = env["HUB_CS"]
		if policy != "" {
			connection = env[simulator.PolicyVariable(policy)]
		}
		if connection == "" {
			return "", "", fmt.Errorf("the hub here has no policy %q; %w", policy, errUsage)
		}
	}
	host, is := admin.Parts(connection)
	if policy != "" && is != policy {
		return "", "", fmt.Errorf("the connection string is of policy %q, not %q; give --hub the connection string of that one", is, policy)
	}
	return connection, host, nil
}
