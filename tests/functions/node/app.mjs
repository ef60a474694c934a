// A Lambda function that does what its records say, for `npx aws-lambda-ric app.handler`; see ../python/app.py.
import { appendFileSync } from "node:fs";

export async function handler(event, context) {
  const records = event.Records.map(({ kinesis }) => ({
    sequenceNumber: kinesis.sequenceNumber,
    ...JSON.parse(Buffer.from(kinesis.data, "base64").toString()),
  }));
  const note = { requestId: context.awsRequestId, records: records.map((record) => record.n) };
  appendFileSync(process.env.INVOCATIONS, JSON.stringify(note) + "\n");
  for (const record of records) {
    switch (record.do) {
      case "report":
        return { batchItemFailures: [{ itemIdentifier: record.sequenceNumber }] };
      case "raise":
        throw new Error(`record ${record.n} is bad`);
      case "sleep":
        await new Promise((resolve) => setTimeout(resolve, 1_000_000));
        break;
      case "exit":
        process.exit(1);
        break;
      case "large":
        return "x".repeat(6 * 1024 * 1024 + 1);
    }
  }
}
