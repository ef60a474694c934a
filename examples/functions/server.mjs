// node server.mjs
import { createServer } from "node:http";
import { json } from "node:stream/consumers";

function handle(record) {
  const order = JSON.parse(Buffer.from(record.kinesis.data, "base64"));
  if (!(order.amount >= 0)) throw new Error("not an amount");
}

createServer(async (request, response) => {
  const batchItemFailures = [];
  for (const record of (await json(request)).Records) {
    try {
      handle(record);
    } catch {
      batchItemFailures.push({ itemIdentifier: record.kinesis.sequenceNumber });
      break;
    }
  }
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ batchItemFailures }));
}).listen(8080, "127.0.0.1");
