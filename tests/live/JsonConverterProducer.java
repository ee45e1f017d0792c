import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.json.JsonConverter;

/** Writes an event from standard input as a Kafka Connect source does: a Struct, by JsonConverter with schemas. */
public final class JsonConverterProducer {
    public static void main(String[] arguments) throws Exception {
        String servers = arguments[0], topic = arguments[1], id = arguments[2];
        Object event = newConverter(false).toConnectData(topic, System.in.readAllBytes()).value();
        Schema schema = infer(event);
        byte[] key = id.getBytes(StandardCharsets.UTF_8);
        byte[] value = newConverter(true).fromConnectData(topic, schema, convert(schema, event));
        Map<String, Object> settings = Map.of("bootstrap.servers", servers);
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            producer.send(new ProducerRecord<>(topic, key, value)).get();
        }
    }

    private static JsonConverter newConverter(boolean hasSchemas) {
        var converter = new JsonConverter();
        converter.configure(Map.of("schemas.enable", hasSchemas), false);
        return converter;
    }

    private static Schema infer(Object value) {
        if (value instanceof Map<?, ?> members) {
            var schema = SchemaBuilder.struct();
            members.forEach((name, member) -> schema.field((String) name, infer(member)));
            return schema.build();
        }
        if (value instanceof List<?> elements) {
            return SchemaBuilder.array(infer(elements.get(0))).build();
        }
        return Schema.STRING_SCHEMA;
    }

    private static Object convert(Schema schema, Object value) {
        if (value instanceof Map<?, ?> members) {
            var struct = new Struct(schema);
            members.forEach((key, member) -> {
                var name = (String) key;
                struct.put(name, convert(schema.field(name).schema(), member));
            });
            return struct;
        }
        if (value instanceof List<?> elements) {
            return elements.stream().map(element -> convert(schema.valueSchema(), element)).toList();
        }
        return value;
    }
}
