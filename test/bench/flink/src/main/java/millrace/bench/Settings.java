package millrace.bench;

import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.MemorySize;
import org.apache.flink.configuration.PipelineOptions;
import org.apache.flink.configuration.TaskManagerOptions;
import org.apache.flink.core.execution.CheckpointingMode;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.api.common.serialization.SimpleStringSchema;

/** What a run is told, as name=value arguments. */
final class Settings {
  private final Map<String, String> given = new HashMap<>();

  Settings(String[] args) {
    for (String a : args) {
      int eq = a.indexOf('=');
      given.put(a.substring(0, eq), a.substring(eq + 1));
    }
  }

  String get(String name) {
    String v = given.get(name);
    if (v == null) throw new IllegalArgumentException(name + "=… is missing");
    return v;
  }

  boolean exactlyOnce() { return get("guarantee").equals("exactly-once"); }

  /** Objects are reused between chained operators, and the heap is left to the job: what a user who cares for speed sets. */
  Configuration flink() {
    Configuration c = new Configuration();
    c.set(PipelineOptions.OBJECT_REUSE, true);
    c.set(TaskManagerOptions.NETWORK_MEMORY_MIN, MemorySize.ofMebiBytes(64));
    c.set(TaskManagerOptions.NETWORK_MEMORY_MAX, MemorySize.ofMebiBytes(64));
    c.set(TaskManagerOptions.MANAGED_MEMORY_SIZE, MemorySize.ofMebiBytes(128));
    c.set(CheckpointingOptions.CHECKPOINTING_INTERVAL, Duration.ofMillis(Long.parseLong(get("checkpoint_ms"))));
    c.set(CheckpointingOptions.CHECKPOINTING_CONSISTENCY_MODE, exactlyOnce() ? CheckpointingMode.EXACTLY_ONCE : CheckpointingMode.AT_LEAST_ONCE);
    c.setString("execution.checkpointing.dir", "file://" + get("dir"));
    return c;
  }

  /** Rows of text into a topic. The connector looks for the type of a serialiser, so it is a class and not a lambda. */
  KafkaSink<String> rows(String topic) {
    var b = KafkaSink.<String>builder().setBootstrapServers(get("brokers"))
        .setRecordSerializer(KafkaRecordSerializationSchema.<String>builder().setTopic(topic).setValueSerializationSchema(new SimpleStringSchema()).build())
        .setProperty("transaction.timeout.ms", "600000").setProperty("linger.ms", "5").setProperty("compression.type", "snappy");
    if (exactlyOnce()) b.setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE).setTransactionalIdPrefix(get("run") + "-" + topic);
    else b.setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE);
    return b.build();
  }
}
