// Command: [java, -cp, "classes:lib/*", com.amazonaws.services.lambda.runtime.api.client.AWSLambda, "App::handle"]
import com.google.gson.*;
import java.util.*;

public class App {
    static void handle(String data) {
        var order = JsonParser.parseString(new String(Base64.getDecoder().decode(data))).getAsJsonObject();
        if (order.get("amount").getAsInt() < 0) throw new IllegalArgumentException("negative amount");
    }

    public Map<String, Object> handle(Map<String, Object> event) {
        for (var record : (List<?>) event.get("Records")) {
            var kinesis = (Map<?, ?>) ((Map<?, ?>) record).get("kinesis");
            try {
                handle((String) kinesis.get("data"));
            } catch (RuntimeException error) {
                System.out.println("failed: " + error);
                return Map.of("batchItemFailures", List.of(Map.of("itemIdentifier", kinesis.get("sequenceNumber"))));
            }
        }
        return Map.of("batchItemFailures", List.of());
    }
}
