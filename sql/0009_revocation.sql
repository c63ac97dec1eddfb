-- Revocation: users and tokens that are refused although the token is good.

create table relay.revocation (
  kind text not null check (kind in ('user', 'jti')),
  value text not null,
  until timestamptz not null,
  issued_before timestamptz,
  revoked_at timestamptz not null default clock_timestamp(),
  revoked_by text not null default session_user,
  primary key (kind, value)
);
create index revocation_until on relay.revocation (until);
comment on table relay.revocation is
  'Who is refused. Relays load it when they begin and then follow the changelog, so write here by relay.revoke and relay.reinstate alone.';
comment on column relay.revocation.value is 'The user (sub or user_id) or the jti, as tokens have it.';
comment on column relay.revocation.issued_before is 'Only tokens whose iat is before it, or that have none; null: all.';

create function relay.revocation_text(r relay.revocation) returns text
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select json_build_object(
    'kind', r.kind, 'value', r.value,
    'until', case when r.until <> 'infinity' then ceil(extract(epoch from r.until) * 1000) end,
    'issued_before', ceil(extract(epoch from r.issued_before) * 1000))::text
$$;
comment on function relay.revocation_text(relay.revocation) is
  'A revocation as relays read it, from the table and from the log: times in milliseconds since 1970, null for ever.';

create function relay.log_revocation(r relay.revocation) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
begin
  perform relay.log(2, relay.revocation_text(r));
  -- Whoever can connect hears it: not of whom.
  perform relay.ring('', 'revocation', 1);
end
$$;
comment on function relay.log_revocation(relay.revocation) is
  'Tells the relays at commit. Call it once the row is locked: the order in the log is the order of the calls then.';

create function relay.revocation_of(user_id text, jti text) returns relay.revocation
language plpgsql stable set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_row relay.revocation;
begin
  if num_nonnulls(user_id, jti) <> 1 then
    raise exception 'either a user or a token is needed'
      using errcode = 'invalid_parameter_value', hint = 'user_id => ''7'', or jti => ''...''.';
  end if;
  v_row.kind := case when jti is null then 'user' else 'jti' end;
  v_row.value := coalesce(user_id, jti);
  -- As much as a token may have.
  if length(v_row.value) not between 1 and (case v_row.kind when 'user' then 128 else 256 end) then
    raise exception 'no token has such a %', v_row.kind
      using errcode = 'invalid_parameter_value', hint = 'A user has 1 to 128 characters, a jti 1 to 256.';
  end if;
  return v_row;
end
$$;
comment on function relay.revocation_of(text, text) is 'What is meant by the arguments of relay.revoke and relay.reinstate.';

create function relay.revoke(user_id text default null, until timestamptz default 'infinity', issued_before timestamptz default null, jti text default null)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_row relay.revocation := relay.revocation_of(user_id, jti);
begin
  if until is null or until <= clock_timestamp() then
    raise exception 'until must be a time to come' using errcode = 'invalid_parameter_value',
      hint = 'Leave it out to revoke for ever; relay.reinstate takes a revocation back.';
  end if;
  if issued_before is not null and (v_row.kind <> 'user' or not isfinite(issued_before)) then
    raise exception 'issued_before must be a time, and goes with a user' using errcode = 'invalid_parameter_value';
  end if;
  -- Rows that somebody else deletes at this moment must not make this wait.
  delete from relay.revocation r
  where (r.kind, r.value) in (
    select o.kind, o.value from relay.revocation o where o.until <= now() for update skip locked);
  insert into relay.revocation as r (kind, value, until, issued_before)
  values (v_row.kind, v_row.value, revoke.until, revoke.issued_before)
  on conflict on constraint revocation_pkey do update
    set until = excluded.until, issued_before = excluded.issued_before,
        revoked_at = excluded.revoked_at, revoked_by = excluded.revoked_by
  returning * into v_row;
  perform relay.log_revocation(v_row);
end
$$;
comment on function relay.revoke(text, timestamptz, timestamptz, text) is
  'Once the transaction commits, all relays close the connections of a user, or of the token with that jti, and refuse new ones until then. issued_before: only tokens with an iat before it, or without one. What an earlier call said of the same is void.';

create function relay.reinstate(user_id text default null, jti text default null) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_row relay.revocation := relay.revocation_of(user_id, jti);
begin
  delete from relay.revocation r where r.kind = v_row.kind and r.value = v_row.value returning * into v_row;
  if not found then
    return false;
  end if;
  v_row.until := 'epoch';
  perform relay.log_revocation(v_row);
  return true;
end
$$;
comment on function relay.reinstate(text, text) is
  'Takes a revocation back, once the transaction commits. Returns whether there was one. A revoked user does not make a revoked jti good, nor the reverse.';

create function relay.must_name_role(role name) returns void
language plpgsql stable set search_path = pg_catalog, relay, pg_temp as $$
begin
  if not exists (select from pg_roles r where r.rolname = must_name_role.role) then
    raise exception 'there is no role %', coalesce(quote_ident(role), 'null') using errcode = 'undefined_object',
      hint = 'Name one as it is in pg_roles, or make it first: create role ... login.';
  end if;
end
$$;
comment on function relay.must_name_role(name) is 'Raises an error, with what to do, where a role is to be given rights that is not there.';

create function relay.admit_revoker(role name) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
begin
  perform relay.must_name_role(role);
  execute format('grant usage on schema relay to %I', role);
  execute format('grant select on relay.revocation to %I', role);
  execute format('grant execute on function relay.revoke(text, timestamptz, timestamptz, text), relay.reinstate(text, text) to %I', role);
end
$$;
comment on function relay.admit_revoker(name) is 'Grants a role the right to revoke users and tokens, to take that back, and to see what is revoked.';
