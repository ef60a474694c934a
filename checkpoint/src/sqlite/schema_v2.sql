-- How long the owner holds the lease without renewing it, in milliseconds; NULL if it did not say.
ALTER TABLE leases ADD COLUMN owner_lease_ms INTEGER;
