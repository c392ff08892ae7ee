package s3_test

import (
	"context"
	"fmt"

	"myrmidon/object/s3"
)

func ExampleNew() {
	// New sends nothing: keys are looked for with the first request.
	store, err := s3.New(context.Background(), s3.Config{Bucket: "media", Prefix: "talks", Region: "eu-central-1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	opening, err := store.Sub("2026/opening")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(store)
	fmt.Println(opening)
	// Output:
	// s3://media/talks
	// s3://media/talks/2026/opening
}
