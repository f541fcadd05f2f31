import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.Collections;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** Uses the JDK's HttpClient with its defaults: it sends `Upgrade: h2c` with every request. */
public class Rerank {
    private static final HttpClient CLIENT = HttpClient.newHttpClient();

    public static void main(String[] arguments) throws Exception {
        URI url = URI.create(arguments[0] + "/v1/rerank");
        HttpRequest three = post(url, BodyPublishers.ofString(body(3))).build();

        for (int turn = 0; turn < 3; turn++) {
            print("post", CLIENT.send(three, BodyHandlers.ofString()));
        }
        print("chunked", CLIENT.send(post(url, chunked(body(3))).build(), BodyHandlers.ofString()));
        print(
                "expect",
                CLIENT.send(
                        post(url, BodyPublishers.ofString(body(3))).expectContinue(true).build(),
                        BodyHandlers.ofString()));
        print(
                "large",
                CLIENT.send(
                        post(url, BodyPublishers.ofString(body(900))).build(),
                        BodyHandlers.ofString()));
        Stream.generate(() -> CLIENT.sendAsync(three, BodyHandlers.ofString()))
                .limit(8)
                .collect(Collectors.toList())
                .forEach(reply -> print("async", reply.join()));
        HttpRequest get = HttpRequest.newBuilder(URI.create(arguments[0] + "/livez")).build();
        print("get", CLIENT.send(get, BodyHandlers.ofString()));
    }

    private static HttpRequest.Builder post(URI url, BodyPublisher body) {
        return HttpRequest.newBuilder(url)
                .timeout(Duration.ofSeconds(30))
                .header("Content-Type", "application/json")
                .POST(body);
    }

    private static BodyPublisher chunked(String body) {
        return BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body.getBytes()));
    }

    /** Documents of about a kilobyte, so that many fill more than one packet. */
    private static String body(int documents) {
        List<String> texts = Collections.nCopies(documents, "\"" + "a fox ".repeat(200) + "\"");
        return "{\"query\": \"fox\", \"documents\": [" + String.join(", ", texts) + "]}";
    }

    private static void print(String kind, HttpResponse<String> reply) {
        int results = reply.body().split("\"index\"").length - 1;
        System.out.println(kind + " " + reply.version() + " " + reply.statusCode() + " " + results);
    }
}
