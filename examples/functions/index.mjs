// Command: [node_modules/.bin/aws-lambda-ric, index.handler]
export async function handler(event) {
  for (const record of event.Records) {
    try {
      const order = JSON.parse(Buffer.from(record.kinesis.data, "base64"));
      if (!(order.amount >= 0)) throw new Error("not an amount");
    } catch (error) {
      console.log(record.eventID, error.message);
      return { batchItemFailures: [{ itemIdentifier: record.kinesis.sequenceNumber }] };
    }
  }
  return { batchItemFailures: [] };
}
