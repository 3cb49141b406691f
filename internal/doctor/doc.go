// Package doctor looks at what a machine has of that which plyfs needs, and
// says what to do about what it has not. It changes nothing: what has to be
// tried is tried on files without names.
package doctor
