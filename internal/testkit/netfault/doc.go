// Package netfault breaks the network between programs under test, on purpose and
// reversibly.
//
// A [Proxy] is a TCP relay on 127.0.0.1 that can be cut, reset (at a byte, too) and slowed down. It
// works for every user on every system, and for programs that can be told an address.
//
// A [Net] is a bridge with network namespaces on it, one an [NS], each with an address
// of its own in 10.213.x.0/24. Programs started inside can be cut off as by a pulled
// cable: what they send is lost, what they wait for times out, and nothing is closed.
// It needs Linux, root with CAP_NET_ADMIN and CAP_SYS_ADMIN, and the program ip of
// iproute2; [Available] says whether they are here.
//
// The package is for tests and benchmarks.
package netfault
