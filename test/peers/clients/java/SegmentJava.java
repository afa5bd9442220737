import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.ToNumberPolicy;
import com.segment.analytics.Analytics;
import com.segment.analytics.Callback;
import com.segment.analytics.messages.AliasMessage;
import com.segment.analytics.messages.GroupMessage;
import com.segment.analytics.messages.IdentifyMessage;
import com.segment.analytics.messages.Message;
import com.segment.analytics.messages.MessageBuilder;
import com.segment.analytics.messages.PageMessage;
import com.segment.analytics.messages.TrackMessage;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.Date;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import okhttp3.OkHttpClient;

/** Sends the session that the suite has written through Segment's library, and waits until it has told what became of every call. */
public class SegmentJava {
  public static void main(String[] args) throws Exception {
    Map<String, String> env = System.getenv();
    Gson gson = new GsonBuilder().setObjectToNumberStrategy(ToNumberPolicy.LAZILY_PARSED_NUMBER).create();
    Map<String, Object> session = gson.fromJson(Files.readString(Path.of(env.get("SESSION"))), Map.class);
    List<Map<String, Object>> calls = (List<Map<String, Object>>) session.get("calls");

    CountDownLatch told = new CountDownLatch(calls.size());
    Analytics analytics =
        Analytics.builder(env.get("WRITE_KEY"))
            .endpoint(env.get("GATEWAY"))
            .flushQueueSize(5)
            .flushInterval(1, TimeUnit.SECONDS)
            .client(new OkHttpClient.Builder().readTimeout(Duration.ofMillis(Long.parseLong(env.get("TIMEOUT_MS")))).build())
            .callback(
                new Callback() {
                  @Override
                  public void success(Message message) {
                    told.countDown();
                  }

                  @Override
                  public void failure(Message message, Throwable cause) {
                    System.err.println("segment-java: " + cause);
                    told.countDown();
                  }
                })
            .build();
    for (Map<String, Object> call : calls) {
      MessageBuilder<?, ?> message = message(call);
      message.timestamp(Date.from(Instant.parse((String) call.get("at"))));
      if (call.containsKey("userId")) message.userId((String) call.get("userId"));
      if (call.containsKey("anonymousId")) message.anonymousId((String) call.get("anonymousId"));
      analytics.enqueue(message);
    }
    analytics.flush();
    boolean all = told.await(Long.parseLong(env.get("PATIENCE_MS")), TimeUnit.MILLISECONDS);
    analytics.shutdown();
    System.exit(all ? 0 : 1);
  }

  private static MessageBuilder<?, ?> message(Map<String, Object> call) {
    Map<String, Object> properties = (Map<String, Object>) call.get("properties");
    Map<String, Object> traits = (Map<String, Object>) call.get("traits");
    return switch ((String) call.get("call")) {
      case "page" -> PageMessage.builder("Deals").properties(properties);
      case "identify" -> IdentifyMessage.builder().traits(traits);
      case "group" -> GroupMessage.builder((String) call.get("groupId")).traits(traits);
      case "alias" -> AliasMessage.builder((String) call.get("previousId"));
      default -> TrackMessage.builder((String) call.get("event")).properties(properties);
    };
  }
}
