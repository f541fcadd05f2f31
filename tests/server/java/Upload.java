import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Path;

/** Posts files: URL, file, framing and content type or encoding, again and again; prints answers. */
class Upload {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newHttpClient();
        for (int at = 0; at < arguments.length; at += 5) {
            var file = Path.of(arguments[at + 1]);
            var chunked = arguments[at + 2].equals("chunked");
            BodyPublisher body = chunked
                    ? BodyPublishers.ofInputStream(() -> open(file))
                    : BodyPublishers.ofFile(file);
            var request = HttpRequest.newBuilder(URI.create(arguments[at]))
                    .header(arguments[at + 3], arguments[at + 4])
                    .POST(body)
                    .build();
            try {
                var response = client.send(request, BodyHandlers.ofString());
                System.out.println(response.statusCode() + " " + response.body());
            } catch (IOException problem) {
                System.out.println("0 " + problem);
            }
        }
    }

    private static InputStream open(Path file) {
        try {
            return new FileInputStream(file.toFile());
        } catch (IOException problem) {
            throw new UncheckedIOException(problem);
        }
    }
}
