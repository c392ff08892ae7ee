package cost

// S3Table is what requests to S3 cost, in US dollars.
type S3Table struct {
	Region string
	AsOf   string // the month that the prices are of, YYYY-MM
	Source string // the page that has the present ones
	Write  float64
	Read   float64
	// Transfer is a GB of 2^30 bytes from this region to another one of the same continent.
	Transfer float64
}

// S3Prices returns the list that [S3] reckons with: S3 Standard.
func S3Prices() S3Table {
	return S3Table{
		Region:   "us-east-1",
		AsOf:     "2026-11",
		Source:   "https://aws.amazon.com/s3/pricing/",
		Write:    0.005 / 1000,
		Read:     0.0004 / 1000,
		Transfer: 0.02,
	}
}

// S3Bill is what requests cost.
type S3Bill struct {
	USD    USD   `json:"usd"`
	Writes int64 `json:"writes"` // PUT, COPY, POST and LIST requests
	Reads  int64 `json:"reads"`  // GET, HEAD and all others but DELETE, which is free
	// Transfer is how many bytes went from one region to another, and is part of USD, if
	// it is known; nil if it is not counted.
	Transfer *int64 `json:"transfer_bytes,omitempty"`
	Region   string `json:"region"`
	AsOf     string `json:"prices_as_of"`
	Source   string `json:"prices_from"`
}

// s3Writes are the verbs that cost as much as a PUT, and s3Free those that cost nothing
// (Amazon S3 pricing, "Requests and data retrievals").
var (
	s3Writes = map[string]bool{"list": true, "put": true, "copy": true, "part-copy": true, "post": true}
	s3Free   = map[string]bool{"delete": true}
)

// S3 adds up requests, by verbs as object.Verb names them, and the bytes that went between
// regions: below 0 if that is not known. Storage, retrieval from colder classes and what goes
// to the internet are not in it.
func S3(requests map[string]int64, transfer int64) S3Bill {
	list := S3Prices()
	b := S3Bill{Region: list.Region, AsOf: list.AsOf, Source: list.Source}
	for verb, n := range requests {
		switch {
		case s3Free[verb]:
		case s3Writes[verb]:
			b.Writes += n
		default:
			b.Reads += n
		}
	}
	b.USD = USD(float64(b.Writes)*list.Write + float64(b.Reads)*list.Read)
	if transfer >= 0 {
		b.Transfer = &transfer
		b.USD += USD(float64(transfer) / (1 << 30) * list.Transfer)
	}
	return b
}
