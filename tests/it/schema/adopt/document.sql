-- The tables of the document from which Doorbell grew, word for word. No PostgreSQL takes its INDEX lines as they are:
-- whoever built it made CREATE INDEX of them, as the tests do.

-- Staging table for data exchange
CREATE TABLE integration.data_staging (
    id BIGSERIAL PRIMARY KEY,
    source_app VARCHAR(50) NOT NULL,
    target_app VARCHAR(50) NOT NULL,
    record_type VARCHAR(50) NOT NULL,
    data JSONB NOT NULL,
    status VARCHAR(20) DEFAULT 'pending',
    priority INTEGER DEFAULT 0,
    retry_count INTEGER DEFAULT 0,
    error_message TEXT,
    created_at TIMESTAMP DEFAULT NOW(),
    updated_at TIMESTAMP DEFAULT NOW(),
    processed_at TIMESTAMP,

    INDEX idx_processing (target_app, status, priority DESC, created_at),
    INDEX idx_cleanup (status, created_at)
);

-- Audit log
CREATE TABLE integration.audit_log (
    id BIGSERIAL PRIMARY KEY,
    staging_id BIGINT REFERENCES integration.data_staging(id),
    app_name VARCHAR(50) NOT NULL,
    action VARCHAR(20) NOT NULL,
    details JSONB,
    created_at TIMESTAMP DEFAULT NOW()
);
