package millrace.bench;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;

/** An event of the shop. Public fields and a constructor without arguments let Flink serialise it as a POJO. */
public class Shop {
  public String id, visitor, name, product, country, device, card, ip;
  public long at, price;

  /** Reads an event without a schema's machinery: the cheapest that each format allows. */
  static final class Reader extends AbstractDeserializationSchema<Shop> {
    private final boolean avro;
    private transient BinaryDecoder binary;
    private transient JsonFactory json;

    Reader(boolean avro) {
      super(Shop.class);
      this.avro = avro;
    }

    @Override
    public Shop deserialize(byte[] value) throws IOException {
      Shop e = new Shop();
      if (avro) readAvro(e, value);
      else readJson(e, value);
      return e;
    }

    private void readAvro(Shop e, byte[] value) throws IOException {
      binary = DecoderFactory.get().binaryDecoder(value, binary);
      e.id = binary.readString();
      e.visitor = binary.readString();
      e.name = binary.readString();
      e.at = binary.readLong();
      e.product = binary.readString();
      e.price = binary.readLong();
      e.country = binary.readString();
      e.device = binary.readString();
      e.card = binary.readString();
      e.ip = binary.readString();
    }

    private void readJson(Shop e, byte[] value) throws IOException {
      if (json == null) json = new JsonFactory();
      try (JsonParser in = json.createParser(value)) {
        if (in.nextToken() != JsonToken.START_OBJECT) throw new IOException("an event is an object");
        String field;
        while ((field = in.nextFieldName()) != null) {
          in.nextToken();
          switch (field) {
            case "event_id" -> e.id = in.getText();
            case "visitor_id" -> e.visitor = in.getText();
            case "name" -> e.name = in.getText();
            case "occurred_at" -> e.at = in.getLongValue();
            case "product_id" -> e.product = in.getText();
            case "price_micros" -> e.price = in.getLongValue();
            case "country" -> e.country = in.getText();
            case "device" -> e.device = in.getText();
            case "card" -> e.card = in.getText();
            case "ip" -> e.ip = in.getText();
            default -> in.skipChildren();
          }
        }
      }
    }
  }
}
