-- The retail model's Sale, with the columns that Autonomy's table has. Directus names members as columns are named, so these are camelCase.
-- The checks stand here and not in Directus, which would take far longer for them.
CREATE TABLE sale (
  id uuid PRIMARY KEY,
  version bigint NOT NULL DEFAULT 1,
  "createdAt" timestamptz NOT NULL DEFAULT now(),
  "updatedAt" timestamptz NOT NULL DEFAULT now(),
  "receiptNumber" varchar(16) NOT NULL CHECK ("receiptNumber" ~ '^[0-9]+$'),
  status text NOT NULL DEFAULT 'completed' CHECK (status IN ('completed', 'voided')),
  "soldAt" timestamptz NOT NULL,
  "businessDate" date NOT NULL,
  "customerNumber" varchar(12),
  "totalAmount" numeric(14, 2) NOT NULL CHECK ("totalAmount" >= 0),
  currency varchar(3) NOT NULL DEFAULT 'EUR' CHECK (currency ~ '^[A-Z]{3}$'),
  loyalty text NOT NULL DEFAULT 'notApplicable' CHECK (loyalty IN ('notApplicable', 'pending', 'accrued', 'noMembership')),
  settlement text NOT NULL DEFAULT 'paid' CHECK (settlement IN ('paid', 'onAccount', 'invoiced', 'voided')),
  "storeId" uuid NOT NULL,
  "customerId" uuid,
  lines jsonb NOT NULL CHECK (jsonb_array_length(lines) BETWEEN 1 AND 500),
  CONSTRAINT sale_key UNIQUE ("storeId", "receiptNumber")
);
CREATE INDEX sale_business_date_store ON sale ("businessDate", "storeId");
CREATE INDEX sale_customer_number ON sale ("customerNumber");

-- What Directus has to know of it. No accountability: the record of every change, which it keeps in two tables, is left out.
INSERT INTO directus_collections (collection, accountability) VALUES ('sale', NULL);
INSERT INTO directus_fields (collection, field, special) VALUES
  ('sale', 'id', 'uuid'),
  ('sale', 'updatedAt', 'date-updated'),
  ('sale', 'lines', 'cast-json');
