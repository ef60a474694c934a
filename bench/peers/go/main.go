// A consumer in Go that counts records, for bench/peers: github.com/harlow/kinesis-consumer on AWS's SDK for Go.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	consumer "github.com/harlow/kinesis-consumer"
	store "github.com/harlow/kinesis-consumer/store/memory"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: go-consumer ENDPOINT STREAM")
	}
	client := kinesis.New(kinesis.Options{
		BaseEndpoint: aws.String(os.Args[1]),
		Credentials:  aws.CredentialsProviderFunc(invented),
		Region:       "us-east-1",
	})
	reader, err := consumer.New(
		os.Args[2],
		consumer.WithClient(client),
		// It keeps each record's position, as every consumer of this benchmark does.
		consumer.WithStore(store.New()),
		consumer.WithShardIteratorType("TRIM_HORIZON"),
		// Its default is a pause of 250 ms between two reads.
		consumer.WithScanInterval(time.Millisecond),
	)
	if err != nil {
		log.Fatal(err)
	}
	var records atomic.Uint64
	go report(&records)
	err = reader.Scan(context.Background(), func(*consumer.Record) error {
		records.Add(1)
		return nil
	})
	log.Fatal("the scan ended: ", err)
}

func invented(context.Context) (aws.Credentials, error) {
	return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
}

// report prints each new count. When its reader is gone, the write ends the process.
func report(records *atomic.Uint64) {
	var shown uint64
	for range time.Tick(10 * time.Millisecond) {
		if now := records.Load(); now != shown {
			shown = now
			fmt.Println(now)
		}
	}
}
