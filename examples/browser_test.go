//go:build examples

package examples_test

const chromium = "/usr/bin/chromium"
