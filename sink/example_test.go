package sink_test

import (
	"context"
	"fmt"
	"os"

	"myrmidon/sink"
)

func ExampleBatcher() {
	ctx := context.Background()
	to, err := sink.NewWriter(os.Stdout, "") // or NewLumberjack, NewFile, kinesis.New, elastic.New
	if err != nil {
		fmt.Println(err)
		return
	}
	b := sink.NewBatcher(to, sink.BatcherConfig{
		Ordered: true,
		Parked: func(r sink.Record, why error) error {
			fmt.Println("parked", r.ID, "-", why)
			return nil
		},
	})
	for i, line := range []string{`{"status":200}`, `{"status":502}`} {
		if _, err := b.Add(ctx, sink.Record{ID: fmt.Sprint("access.log:", i), Data: []byte(line)}); err != nil {
			fmt.Println(err)
		}
	}
	if err := b.Close(ctx); err != nil {
		fmt.Println(err)
	}
	fmt.Println(b.Stats().Acked, "acked")
	// Output:
	// {"status":200}
	// {"status":502}
	// 2 acked
}
