-- The tables of the sinks in this folder, for PostgreSQL 12 or later. Run it once, before the sinks start.
BEGIN;

-- The records of conversation-transitions. Their place in the topic is their key, so a record that comes again is one row.
CREATE TABLE transition_log (
    __connect_topic text,
    __connect_partition integer,
    __connect_offset bigint,
    published_time timestamptz NOT NULL,
    document jsonb NOT NULL,
    PRIMARY KEY (__connect_topic, __connect_partition, __connect_offset)
);
CREATE INDEX transition_log_id ON transition_log ((document ->> 'id'), __connect_offset);

-- The transitions that stand, with the columns of `export`.
CREATE TABLE transitions (
    conversation_id text NOT NULL,
    participant_id text NOT NULL,
    communication_id text,
    media text NOT NULL,
    from_state text,
    to_state text NOT NULL,
    event_time timestamptz NOT NULL,
    time_class text NOT NULL,
    milliseconds_in_from bigint,
    purpose text,
    user_id text,
    queue_id text,
    disconnect_type text,
    error_code text,
    id text PRIMARY KEY,
    published_time timestamptz NOT NULL,
    source_offset bigint NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL
);
CREATE INDEX transitions_event_time ON transitions (event_time);
CREATE INDEX transitions_conversation ON transitions (conversation_id);

-- Per id the last operation counts. It is looked up in the log, because a sink that was killed may still have a
-- statement under way while the next one repeats what came before it.
CREATE FUNCTION apply_operation() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last transition_log%ROWTYPE;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext(NEW.__connect_topic), NEW.__connect_partition);
    SELECT * INTO STRICT last FROM transition_log
        WHERE document ->> 'id' = NEW.document ->> 'id' ORDER BY __connect_offset DESC LIMIT 1;
    DELETE FROM transitions WHERE id = last.document ->> 'id';
    IF last.document ->> 'op' = 'assert' THEN
        INSERT INTO transitions VALUES (
            last.document ->> 'conversationId',
            last.document ->> 'participantId',
            last.document ->> 'communicationId',
            last.document ->> 'media',
            last.document ->> 'from',
            last.document ->> 'to',
            (last.document ->> 'eventTime')::timestamptz,
            last.document ->> 'timeClass',
            (last.document ->> 'millisecondsInFrom')::bigint,
            last.document #>> '{context,purpose}',
            last.document #>> '{context,userId}',
            last.document #>> '{context,queueId}',
            last.document #>> '{context,disconnectType}',
            last.document #>> '{context,errorCode}',
            last.document ->> 'id',
            last.published_time,
            (last.document #>> '{source,offset}')::bigint,
            last.__connect_partition,
            last.__connect_offset
        );
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER apply_operation AFTER INSERT ON transition_log FOR EACH ROW EXECUTE FUNCTION apply_operation();

-- The newest state of each conversation. A tombstone deletes its row.
CREATE TABLE latest_states (
    conversation_id text PRIMARY KEY,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    document jsonb NOT NULL,
    live integer NOT NULL GENERATED ALWAYS AS ((document -> 'live')::integer) STORED
);
CREATE INDEX latest_states_live ON latest_states (live) WHERE live > 0;

-- A record without a document is a tombstone. An older record that comes again changes nothing.
CREATE FUNCTION keep_newest_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.document IS NULL THEN
        DELETE FROM latest_states
            WHERE conversation_id = NEW.conversation_id AND kafka_offset < NEW.kafka_offset;
        RETURN NULL;
    ELSIF TG_OP = 'UPDATE' AND NEW.kafka_offset < OLD.kafka_offset THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER keep_newest_state BEFORE INSERT OR UPDATE ON latest_states
    FOR EACH ROW EXECUTE FUNCTION keep_newest_state();

-- A row for each communication.
CREATE VIEW communications AS
SELECT state.conversation_id,
       participant ->> 'participantId' AS participant_id,
       participant #>> '{details,purpose}' AS purpose,
       participant #>> '{details,userId}' AS user_id,
       participant #>> '{details,queueId}' AS queue_id,
       communication ->> 'media' AS media,
       communication ->> 'communicationId' AS communication_id,
       communication ->> 'state' AS state,
       (communication ->> 'stateTime')::timestamptz AS state_time,
       (communication ->> 'began')::timestamptz AS began,
       coalesce((communication -> 'live')::boolean, false) AS live,
       communication -> 'details' AS details
FROM latest_states AS state,
     jsonb_array_elements(state.document -> 'participants') AS participant,
     jsonb_array_elements(participant -> 'communications') AS communication;

COMMIT;
