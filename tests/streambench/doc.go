// Command streambench measures layers going in and out beside the peers and
// beside the plain tools, in one run: `make bench-streams`.
//
// Every line is measured as a command, its start included, and alternately:
// each round runs every contestant once, and rounds are repeated. Printed are
// the medians, their ratio to ours, the CPU seconds and the largest resident
// set. Everything is on tmpfs, so that the disk does not decide; the program
// needs root, since the stores are those of the overlay driver.
//
// Nothing is asserted: the numbers of a run hold only beside each other.
package main
