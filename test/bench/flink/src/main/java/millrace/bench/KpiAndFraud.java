package millrace.bench;

import java.time.Duration;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.SlidingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;

/**
 * Events, orders and revenue by second, country and device; and cards that are used more than five times within a minute, looked at every ten seconds. It reads a topic
 * to where it ended at the start, closes all windows and ends.
 */
public final class KpiAndFraud {
  private KpiAndFraud() {}

  /** events, orders, revenue. */
  static final class Sums implements AggregateFunction<Shop, long[], long[]> {
    @Override public long[] createAccumulator() { return new long[3]; }
    @Override public long[] getResult(long[] s) { return s; }

    @Override
    public long[] add(Shop e, long[] s) {
      s[0]++;
      if (e.name.equals("purchase")) {
        s[1]++;
        s[2] += e.price;
      }
      return s;
    }

    @Override
    public long[] merge(long[] a, long[] b) {
      a[0] += b[0];
      a[1] += b[1];
      a[2] += b[2];
      return a;
    }
  }

  static final class KpiRow extends ProcessWindowFunction<long[], String, Tuple2<String, String>, TimeWindow> {
    @Override
    public void process(Tuple2<String, String> key, Context c, Iterable<long[]> one, Collector<String> out) {
      long[] s = one.iterator().next();
      out.collect("{\"window_start\":" + c.window().getStart() + ",\"country\":\"" + key.f0 + "\",\"device\":\"" + key.f1 + "\",\"events\":" + s[0] + ",\"orders\":" + s[1] + ",\"revenue\":" + s[2] + "}");
    }
  }

  static final class Uses implements AggregateFunction<Shop, Long, Long> {
    @Override public Long createAccumulator() { return 0L; }
    @Override public Long add(Shop e, Long n) { return n + 1; }
    @Override public Long getResult(Long n) { return n; }
    @Override public Long merge(Long a, Long b) { return a + b; }
  }

  static final class AlertRow extends ProcessWindowFunction<Long, String, String, TimeWindow> {
    @Override
    public void process(String card, Context c, Iterable<Long> one, Collector<String> out) {
      long n = one.iterator().next();
      if (n > 5) out.collect("{\"window_start\":" + c.window().getStart() + ",\"card\":\"" + card + "\",\"purchases\":" + n + "}");
    }
  }

  public static void main(String[] args) throws Exception {
    Settings s = new Settings(args);
    var env = StreamExecutionEnvironment.getExecutionEnvironment(s.flink());
    env.setParallelism(2);
    var source = KafkaSource.<Shop>builder().setBootstrapServers(s.get("brokers")).setTopics(s.get("topic")).setGroupId(s.get("run"))
        .setStartingOffsets(OffsetsInitializer.earliest()).setBounded(OffsetsInitializer.latest()).setValueOnlyDeserializer(new Shop.Reader(s.get("format").equals("avro")))
        .setProperty("fetch.max.bytes", "33554432").setProperty("max.partition.fetch.bytes", "4194304").setProperty("max.poll.records", "5000").build();
    DataStream<Shop> events = env.fromSource(source, WatermarkStrategy.<Shop>forBoundedOutOfOrderness(Duration.ofSeconds(2)).withTimestampAssigner((e, t) -> e.at), "events")
        .filter(e -> !e.name.equals("end"));
    events.keyBy(e -> Tuple2.of(e.country, e.device), Types.TUPLE(Types.STRING, Types.STRING)).window(TumblingEventTimeWindows.of(Duration.ofSeconds(1)))
        .aggregate(new Sums(), new KpiRow()).sinkTo(s.rows(s.get("kpi")));
    events.filter(e -> e.name.equals("purchase")).keyBy(e -> e.card).window(SlidingEventTimeWindows.of(Duration.ofSeconds(60), Duration.ofSeconds(10)))
        .aggregate(new Uses(), new AlertRow()).sinkTo(s.rows(s.get("alerts")));
    env.execute("kpi and fraud");
  }
}
