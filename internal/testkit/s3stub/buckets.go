package s3stub

import (
	"encoding/xml"
	"maps"
	"net/http"
	"slices"
)

func (c *call) listBuckets() {
	c.s.mu.RLock()
	all := slices.SortedFunc(maps.Values(c.s.buckets), func(x, y *bucket) int {
		if x.name < y.name {
			return -1
		}
		return 1
	})
	c.s.mu.RUnlock()
	c.xml("ListAllMyBucketsResult")
	c.out = append(c.out, owner...)
	c.open("Buckets")
	for _, b := range all {
		c.open("Bucket")
		c.elem("Name", b.name)
		c.open("CreationDate")
		c.out = appendTime(c.out, b.created)
		c.end("CreationDate")
		c.end("Bucket")
	}
	c.end("Buckets")
	c.end("ListAllMyBucketsResult")
}

func (c *call) createBucket() *apiError {
	var conf struct {
		Location string `xml:"LocationConstraint"`
	}
	if len(c.body) > 0 {
		if err := xml.Unmarshal(c.body, &conf); err != nil {
			return malformedXML()
		}
	}
	if conf.Location == "" {
		conf.Location = c.s.cfg.Region
	}
	if len(c.bucket) < 3 || len(c.bucket) > 63 {
		return failed(http.StatusBadRequest, "InvalidBucketName", "The specified bucket is not valid.")
	}
	if c.s.AddBucketIn(c.bucket, conf.Location) != nil {
		return failed(http.StatusConflict, "BucketAlreadyOwnedByYou",
			"Your previous request to create the named bucket succeeded and you already own it.")
	}
	c.set("Location", "/"+c.bucket)
	return nil
}

func (c *call) deleteBucket() *apiError {
	if !c.b.empty() {
		return failed(http.StatusConflict, "BucketNotEmpty", "The bucket you tried to delete is not empty")
	}
	c.s.mu.Lock()
	delete(c.s.buckets, c.bucket)
	c.s.mu.Unlock()
	c.status = http.StatusNoContent
	return nil
}
