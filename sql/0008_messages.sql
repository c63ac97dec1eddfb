-- What is written to the log and is no change of a table: messages of the application, and the relays' canaries.

create function relay.broadcast(channel text, payload jsonb) returns void
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp as $$
begin
  if (channel ~ '^[a-z][a-z0-9_]{0,62}(:[^[:space:]:]{1,128})?$') is not true then
    raise exception 'channel % cannot be used: a prefix, or a prefix and an id, such as committee:7', quote_nullable(channel)
      using errcode = 'invalid_parameter_value',
        hint = 'A prefix is lower-case letters, digits and underscores, an id 1 to 128 characters without blanks and colons.';
  end if;
  if payload is null then
    raise exception 'payload must not be null' using errcode = 'invalid_parameter_value', hint = 'Send ''null'' or ''{}''.';
  end if;
  if octet_length(payload::text) > 8388608 then
    raise exception 'payload must not have more than 8 MB' using errcode = 'program_limit_exceeded';
  end if;
  perform relay.log(1, jsonb_build_object('channel', channel, 'payload', payload)::text);
  perform relay.ring('', 'message', 1);
end
$$;
comment on function relay.broadcast(text, jsonb) is 'Sends a message of the application to everybody who is subscribed to the channel, once the transaction commits.';

create function relay.send_to_user(user_id text, payload jsonb) returns void
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp as $$
begin
  if (user_id ~ '^[^[:space:]:]{1,128}$') is not true then
    raise exception 'user_id % cannot be used: 1 to 128 characters without blanks and colons', quote_nullable(user_id)
      using errcode = 'invalid_parameter_value', hint = 'It is the sub or user_id of the user''s tokens.';
  end if;
  perform relay.broadcast('user:' || user_id, payload);
end
$$;
comment on function relay.send_to_user(text, jsonb) is 'Sends a message of the application to all connections of one user, once the transaction commits.';

-- It does not ring: whether notifications arrive is proven otherwise, and writers should not meet the lock of NOTIFY because of it.
create function relay.canary(name text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp as $$
begin
  if (length(name) between 1 and 128) is not true then
    raise exception 'name must have 1 to 128 characters' using errcode = 'invalid_parameter_value';
  end if;
  perform relay.log(3, to_json(name)::text);
end
$$;
comment on function relay.canary(text) is 'Writes a row to the log that no client is sent: the relay that wrote it waits for it.';
