//go:build race

package store_test

// raceDetected says that this test binary has the race detector.
const raceDetected = true
