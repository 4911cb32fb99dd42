-- What bench/upsert/run measures.
\set QUIET 1
\set ON_ERROR_STOP 1
CREATE TABLE sale (id uuid PRIMARY KEY, version bigint NOT NULL DEFAULT 1, created_at timestamptz NOT NULL DEFAULT now(),
  receipt text NOT NULL UNIQUE, sold_at timestamptz, total numeric(12, 2), status text, store uuid, customer text, note text);
CREATE TABLE given AS
  SELECT gen_random_uuid() AS id, 'R' || lpad(g::text, 10, '0') AS receipt, now() + g * interval '1 s' AS sold_at, (g % 10000) / 100.0::numeric AS total,
         'new' AS status, gen_random_uuid() AS store, 'C' || g AS customer, NULL::text AS note
  FROM generate_series(1, 5000) AS g;
INSERT INTO sale (id, receipt, sold_at, total, status, store, customer, note) SELECT * FROM given;
COPY given TO :'file' (FORMAT binary);
CREATE TEMP TABLE arrays AS
  SELECT array_agg(id) AS a, array_agg(receipt) AS b, array_agg(sold_at) AS c, array_agg(total) AS d, array_agg(status) AS e, array_agg(store) AS f,
         array_agg(customer) AS g, array_agg(note) AS h
  FROM given;
CREATE TEMP TABLE staged (LIKE given) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE measured (way text, milliseconds float8);
CREATE PROCEDURE measure(way text, file text) LANGUAGE plpgsql AS $$
DECLARE
  begun timestamptz;
BEGIN
  FOR round IN 1..21 LOOP
    begun := clock_timestamp();
    IF way = 'unnest' THEN
      INSERT INTO sale AS t (id, receipt, sold_at, total, status, store, customer, note) SELECT u.* FROM arrays, unnest(a, b, c, d, e, f, g, h) AS u
        ON CONFLICT (receipt) DO UPDATE SET sold_at = excluded.sold_at, total = excluded.total, status = excluded.status, version = t.version + 1;
    ELSE
      EXECUTE format('COPY staged FROM %L (FORMAT binary)', file);
      INSERT INTO sale AS t (id, receipt, sold_at, total, status, store, customer, note) SELECT * FROM staged
        ON CONFLICT (receipt) DO UPDATE SET sold_at = excluded.sold_at, total = excluded.total, status = excluded.status, version = t.version + 1;
    END IF;
    COMMIT;
    INSERT INTO measured VALUES (way, 1000 * extract(epoch FROM clock_timestamp() - begun));
    COMMIT;
  END LOOP;
END $$;
CALL measure('unnest', :'file');
CALL measure('staged', :'file');
\pset footer off
SELECT way, round(percentile_cont(0.5) WITHIN GROUP (ORDER BY milliseconds)::numeric, 1) AS "median ms",
       round((percentile_cont(0.5) WITHIN GROUP (ORDER BY milliseconds)
              / (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY milliseconds) FROM measured WHERE way = 'unnest'))::numeric, 2) AS ratio
FROM measured GROUP BY way ORDER BY way DESC;
