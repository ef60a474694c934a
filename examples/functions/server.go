// go run server.go
package main

import (
	"encoding/json"
	"net/http"
)

type record struct {
	SequenceNumber string
	Data           []byte // base64 in the event
}

func function(w http.ResponseWriter, r *http.Request) {
	var event struct{ Records []struct{ Kinesis record } }
	if json.NewDecoder(r.Body).Decode(&event) != nil {
		http.Error(w, "not an event", 400)
		return
	}
	failures := []map[string]string{}
	for _, item := range event.Records {
		var order struct{ Amount int }
		if json.Unmarshal(item.Kinesis.Data, &order) != nil || order.Amount < 0 {
			failures = append(failures, map[string]string{"itemIdentifier": item.Kinesis.SequenceNumber})
			break
		}
	}
	json.NewEncoder(w).Encode(map[string]any{"batchItemFailures": failures})
}
func main() { http.ListenAndServe("127.0.0.1:8080", http.HandlerFunc(function)) }
