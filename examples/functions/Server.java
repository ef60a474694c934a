// java -cp gson.jar Server.java
import com.google.gson.*;
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.Base64;

public class Server {
    static String answer(JsonElement event) {
        for (var record : event.getAsJsonObject().getAsJsonArray("Records")) {
            var kinesis = record.getAsJsonObject().getAsJsonObject("kinesis");
            try {
                var data = new String(Base64.getDecoder().decode(kinesis.get("data").getAsString()));
                var order = JsonParser.parseString(data).getAsJsonObject();
                if (order.get("amount").getAsInt() < 0) throw new IllegalArgumentException("negative amount");
            } catch (RuntimeException error) {
                return "{\"batchItemFailures\":[{\"itemIdentifier\":" + kinesis.get("sequenceNumber") + "}]}";
            }
        }
        return "{\"batchItemFailures\":[]}";
    }
    public static void main(String[] args) throws Exception {
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", 8080), 0);
        server.setExecutor(java.util.concurrent.Executors.newCachedThreadPool());
        server.createContext("/", exchange -> {
            byte[] body = exchange.getRequestBody().readAllBytes();
            byte[] answer = answer(JsonParser.parseString(new String(body))).getBytes();
            exchange.sendResponseHeaders(200, answer.length);
            try (var out = exchange.getResponseBody()) { out.write(answer); }
        });
        server.start();
    }
}
