// Package drivertest is the conformance suite of the contract in package
// drivers: every driver, in every mode, runs the same cases and benchmarks.
//
// Each case gets a fresh graph root and runs in parallel with the others. When
// it ends, nothing may be mounted below its root.
//
// regressions.go holds one case for each bug of this field that the public
// remembers, with the address of its report.
package drivertest
