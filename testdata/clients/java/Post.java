import java.io.FileInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Posts a body and prints a line for each answer. Arguments: URL, length, connections, posts on each, the certificate to trust or "". */
public class Post {
    public static void main(String[] args) throws Exception {
        byte[] body = new byte[Integer.parseInt(args[1])];
        for (int c = 0; c < Integer.parseInt(args[2]); c++) {
            HttpClient client = client(args[4]);
            for (int i = 0; i < Integer.parseInt(args[3]); i++) {
                HttpRequest request = HttpRequest.newBuilder(URI.create(args[0]))
                        .timeout(Duration.ofSeconds(60))
                        .POST(HttpRequest.BodyPublishers.ofByteArray(body))
                        .build();
                HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
                String version = response.version() == HttpClient.Version.HTTP_2 ? "HTTP/2" : "HTTP/1.1";
                System.out.println(response.statusCode() + " " + version);
            }
        }
        System.exit(0); // The clients' threads would stay for a while.
    }

    static HttpClient client(String ca) throws Exception {
        HttpClient.Builder builder = HttpClient.newBuilder();
        if (!ca.isEmpty()) {
            KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
            store.load(null, null);
            try (FileInputStream in = new FileInputStream(ca)) {
                store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(in));
            }
            TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
            trust.init(store);
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(null, trust.getTrustManagers(), null);
            builder.sslContext(context);
        }
        return builder.build();
    }
}
