package millrace.bench;

import java.util.Map;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;

/** Queries of the Nexmark suite in Flink SQL, in the form of its public repository with window table functions where these exist. One topic holds all events. */
public final class Nexmark {
  private Nexmark() {}

  /** What a query's result looks like, and how it is made. A key makes it a table of last values. */
  record Query(String columns, String key, String text) {}

  static final Map<String, Query> QUERIES = Map.of(
      "q1", new Query("auction BIGINT, bidder BIGINT, price DECIMAL(23, 3), ms BIGINT", null,
          "SELECT auction, bidder, 0.908 * price, ms FROM bid"),
      "q5", new Query("starts BIGINT, auction BIGINT, num BIGINT", null,
          "SELECT UNIX_TIMESTAMP(CAST(b.window_start AS STRING)), b.auction, b.num FROM ("
              + " SELECT auction, COUNT(*) AS num, window_start, window_end FROM HOP(TABLE bid, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '10' SECOND)"
              + " GROUP BY auction, window_start, window_end) AS b JOIN ("
              + " SELECT MAX(num) AS most, window_start, window_end FROM ("
              + "  SELECT COUNT(*) AS num, window_start, window_end FROM HOP(TABLE bid, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '10' SECOND)"
              + "  GROUP BY auction, window_start, window_end) GROUP BY window_start, window_end) AS m"
              + " ON b.window_start = m.window_start AND b.window_end = m.window_end AND b.num >= m.most"),
      "q7", new Query("starts BIGINT, auction BIGINT, bidder BIGINT, price BIGINT, ms BIGINT", null,
          "SELECT UNIX_TIMESTAMP(CAST(m.window_start AS STRING)), b.auction, b.bidder, b.price, b.ms FROM ("
              + " SELECT *  FROM TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND)) AS b JOIN ("
              + " SELECT MAX(price) AS price, window_start, window_end FROM TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY window_start, window_end) AS m"
              + " ON b.window_start = m.window_start AND b.window_end = m.window_end AND b.price = m.price"),
      "q8", new Query("id BIGINT, name STRING, starts BIGINT", null,
          "SELECT p.id, p.name, UNIX_TIMESTAMP(CAST(p.window_start AS STRING)) FROM ("
              + " SELECT id, name, window_start, window_end FROM TUMBLE(TABLE person, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY id, name, window_start, window_end) AS p JOIN ("
              + " SELECT seller, window_start, window_end FROM TUMBLE(TABLE auction, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY seller, window_start, window_end) AS a"
              + " ON p.id = a.seller AND p.window_start = a.window_start AND p.window_end = a.window_end"),
      "q11", new Query("bidder BIGINT, num BIGINT, starts BIGINT, ends BIGINT", null,
          "SELECT bidder, COUNT(*), UNIX_TIMESTAMP(CAST(window_start AS STRING), 'yyyy-MM-dd HH:mm:ss.SSS'), UNIX_TIMESTAMP(CAST(window_end AS STRING), 'yyyy-MM-dd HH:mm:ss.SSS')"
              + " FROM SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(ts), INTERVAL '10' SECOND) GROUP BY bidder, window_start, window_end"),
      "q18", new Query("auction BIGINT, bidder BIGINT, price BIGINT, ms BIGINT", "bidder, auction",
          "SELECT auction, bidder, price, ms FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY bidder, auction ORDER BY ts DESC) AS nth FROM bid) WHERE nth = 1"));

  public static void main(String[] args) throws Exception {
    Settings s = new Settings(args);
    var env = StreamExecutionEnvironment.getExecutionEnvironment(s.flink());
    env.setParallelism(2);
    var t = StreamTableEnvironment.create(env);
    t.getConfig().setLocalTimeZone(java.time.ZoneOffset.UTC);
    t.executeSql("CREATE TABLE events (kind INT, ms BIGINT, person ROW<id BIGINT, name STRING, email STRING, city STRING, state STRING>,"
        + " auction ROW<id BIGINT, seller BIGINT, category BIGINT, item STRING, opening BIGINT, expires BIGINT>,"
        + " bid ROW<auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING>,"
        + " ts AS TO_TIMESTAMP_LTZ(ms, 3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND) WITH ('connector' = 'kafka', 'topic' = '" + s.get("topic") + "',"
        + " 'properties.bootstrap.servers' = '" + s.get("brokers") + "', 'properties.group.id' = '" + s.get("run") + "', 'scan.startup.mode' = 'earliest-offset',"
        + " 'scan.bounded.mode' = 'latest-offset', 'properties.fetch.max.bytes' = '33554432', 'properties.max.partition.fetch.bytes' = '4194304',"
        + " 'properties.max.poll.records' = '5000', 'format' = 'json')");
    t.executeSql("CREATE VIEW person AS SELECT person.id, person.name, person.email, person.city, person.state, ms, ts FROM events WHERE kind = 0");
    t.executeSql("CREATE VIEW auction AS SELECT auction.id, auction.seller, auction.category, auction.item, auction.opening, auction.expires, ms, ts FROM events WHERE kind = 1");
    t.executeSql("CREATE VIEW bid AS SELECT bid.auction, bid.bidder, bid.price, bid.channel, bid.url, ms, ts FROM events WHERE kind = 2");
    Query q = QUERIES.get(s.get("query"));
    String options = "'topic' = '" + s.get("out") + "', 'properties.bootstrap.servers' = '" + s.get("brokers") + "', 'properties.transaction.timeout.ms' = '600000',"
        + " 'properties.linger.ms' = '5', 'properties.compression.type' = 'snappy', 'sink.delivery-guarantee' = 'exactly-once', 'sink.transactional-id-prefix' = '" + s.get("run") + "'";
    t.executeSql("CREATE TABLE answers (" + q.columns() + (q.key() == null ? "" : ", PRIMARY KEY (" + q.key() + ") NOT ENFORCED") + ") WITH ("
        + (q.key() == null ? "'connector' = 'kafka', 'format' = 'json', " : "'connector' = 'upsert-kafka', 'key.format' = 'json', 'value.format' = 'json', ") + options + ")");
    t.executeSql("INSERT INTO answers " + q.text()).await();
  }
}
