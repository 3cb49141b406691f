//go:build !race

package fusetest

// raceDetected says that this test binary has the race detector.
const raceDetected = false
