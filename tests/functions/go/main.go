// A Lambda function that does what its records say; see ../python/app.py.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type record struct {
	N  int    `json:"n"`
	Do string `json:"do"`
}

type note struct {
	RequestID string `json:"requestId"`
	Records   []int  `json:"records"`
}

func write(note note) error {
	file, err := os.OpenFile(os.Getenv("INVOCATIONS"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	return json.NewEncoder(file).Encode(note)
}

func handle(ctx context.Context, event events.KinesisEvent) (any, error) {
	var records []record
	var numbers []int
	for _, source := range event.Records {
		var record record
		if err := json.Unmarshal(source.Kinesis.Data, &record); err != nil {
			return nil, err
		}
		records = append(records, record)
		numbers = append(numbers, record.N)
	}
	invocation, _ := lambdacontext.FromContext(ctx)
	if err := write(note{RequestID: invocation.AwsRequestID, Records: numbers}); err != nil {
		return nil, err
	}
	for i, record := range records {
		switch record.Do {
		case "report":
			failed := events.KinesisBatchItemFailure{ItemIdentifier: event.Records[i].Kinesis.SequenceNumber}
			return events.KinesisEventResponse{BatchItemFailures: []events.KinesisBatchItemFailure{failed}}, nil
		case "raise":
			return nil, fmt.Errorf("record %d is bad", record.N)
		case "sleep":
			time.Sleep(1000 * time.Second)
		case "exit":
			os.Exit(1)
		case "large":
			return strings.Repeat("x", 6*1024*1024+1), nil
		}
	}
	return nil, nil
}

func main() {
	lambda.Start(handle)
}
