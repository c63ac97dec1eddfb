delete from writers_none where id = (select nextval('writers_none_next'));
