import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Grouped;

/**
 * Counts how often agents were connected, by queue and hour of the event, with Kafka Streams.
 *
 * <p>Arguments: bootstrap servers, the topic of the transitions, the topic of the counts, and the application's id. The
 * log becomes the table that it is a log of: an assert puts a transition under its id, and a retract takes it out. What
 * is counted from a table is corrected with it.
 */
public final class ConnectedByQueue {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) {
        String servers = arguments[0], transitions = arguments[1], counts = arguments[2], id = arguments[3];
        var settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, id);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, servers);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2); // reads what is committed
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        System.getProperties().stringPropertyNames().stream() // -Dstreams.replication.factor=3 and the like
                .filter(name -> name.startsWith("streams."))
                .forEach(name -> settings.put(name.substring("streams.".length()), System.getProperty(name)));

        var builder = new StreamsBuilder();
        builder.<String, String>stream(transitions)
                .map((conversation, text) -> {
                    JsonNode operation = parse(text);
                    boolean stands = operation.path("op").asText().equals("assert");
                    return KeyValue.pair(operation.path("id").asText(), stands ? text : null);
                })
                .toTable()
                .filter((transition, text) -> isConnectedAgent(parse(text)))
                .groupBy((transition, text) -> KeyValue.pair(nameGroup(parse(text)), text), Grouped.keySerde(Serdes.String()))
                .count()
                .mapValues(String::valueOf)
                .toStream()
                .to(counts);

        var streams = new KafkaStreams(builder.build(), settings);
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }

    private static boolean isConnectedAgent(JsonNode transition) {
        JsonNode context = transition.path("context");
        return transition.path("to").asText().equals("connected")
                && context.path("purpose").asText().equals("agent")
                && context.has("queueId");
    }

    /** A queue and an hour, such as {@code 5e6b... 2026-01-31T09}. */
    private static String nameGroup(JsonNode transition) {
        String hour = transition.path("eventTime").asText().substring(0, "2026-01-31T09".length());
        return transition.path("context").path("queueId").asText() + " " + hour;
    }

    private static JsonNode parse(String text) {
        try {
            return JSON.readTree(text);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
