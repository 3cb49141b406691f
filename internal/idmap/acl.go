package idmap

import (
	"encoding/binary"
	"slices"
)

// The attributes in which Linux keeps ACLs, and their form: a version, then
// entries of a tag, a set of permissions and an ID
// (linux/posix_acl_xattr.h).
const (
	AccessACL  = "system.posix_acl_access"
	DefaultACL = "system.posix_acl_default"

	aclHeader  = 4
	aclEntry   = 8
	aclVersion = 2

	aclUserObj  = 1
	aclUser     = 2
	aclGroupObj = 4
	aclGroup    = 8
	aclOther    = 32
)

// IsACL tells whether the attribute of this name is an ACL.
func IsACL(name string) bool { return name == AccessACL || name == DefaultACL }

// MapACL returns an ACL's value with its IDs translated by user and group, whose
// first error it returns. v stays as it is; what is no ACL comes back so.
func MapACL(v []byte, user, group func(id uint32) (uint32, error)) ([]byte, error) {
	if len(v) < aclHeader {
		return v, nil
	}
	out := slices.Clone(v)
	for b := out[aclHeader:]; len(b) >= aclEntry; b = b[aclEntry:] {
		to := user
		switch binary.LittleEndian.Uint16(b) {
		case aclUser:
		case aclGroup:
			to = group
		default:
			continue
		}
		id, err := to(binary.LittleEndian.Uint32(b[4:]))
		if err != nil {
			return nil, err
		}
		binary.LittleEndian.PutUint32(b[4:], id)
	}
	return out, nil
}

// PlainACL returns the permissions that an ACL gives which says no more than these nine
// bits: ok is false for any other.
func PlainACL(v []byte) (perm uint32, ok bool) {
	tags := [...]uint16{aclUserObj, aclGroupObj, aclOther}
	if len(v) != aclHeader+len(tags)*aclEntry || binary.LittleEndian.Uint32(v) != aclVersion {
		return 0, false
	}
	for i, tag := range tags {
		b := v[aclHeader+i*aclEntry:]
		bits := binary.LittleEndian.Uint16(b[2:])
		if binary.LittleEndian.Uint16(b) != tag || bits > 7 {
			return 0, false
		}
		perm = perm<<3 | uint32(bits)
	}
	return perm, true
}
