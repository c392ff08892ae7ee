package wire

// Region returns the region that an address of S3 names, "" if it names none.
func Region(address string) string {
	if !isS3(address) {
		return ""
	}
	a, err := parse(address)
	if err != nil {
		return ""
	}
	return a.region
}
