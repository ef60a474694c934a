// Command: [./function], after go build -o function lambda.go
package main

import (
	"encoding/json"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
)

func handle(event events.KinesisEvent) (response events.KinesisEventResponse, err error) {
	for _, record := range event.Records {
		var order struct{ Amount int }
		if json.Unmarshal(record.Kinesis.Data, &order) != nil || order.Amount < 0 {
			failure := events.KinesisBatchItemFailure{ItemIdentifier: record.Kinesis.SequenceNumber}
			response.BatchItemFailures = []events.KinesisBatchItemFailure{failure}
			return
		}
	}
	return
}

func main() { lambda.Start(handle) }
