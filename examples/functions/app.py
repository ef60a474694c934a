# Command: [python3, -m, awslambdaric, app.handler]
import base64, json

def handler(event, context):
    for record in event["Records"]:
        try:
            order = json.loads(base64.b64decode(record["kinesis"]["data"]))
            if order["amount"] < 0:
                raise ValueError("negative amount")
        except Exception as error:
            print(f"{record['eventID']}: {error}")
            return {"batchItemFailures": [{"itemIdentifier": record["kinesis"]["sequenceNumber"]}]}
    return {"batchItemFailures": []}
