// Package idmap translates user and group IDs between a container and its host.
package idmap

// Range maps Size consecutive IDs from ContainerID on to as many from HostID
// on. It has the JSON form of the store's records (uidmap, gidmap).
type Range struct {
	ContainerID int `json:"container_id"`
	HostID      int `json:"host_id"`
	Size        int `json:"size"`
}

// Maps holds both maps; an empty list is the identity.
type Maps struct{ UIDs, GIDs []Range }
