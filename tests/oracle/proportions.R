# Intervals of proportions by prop.test(correct = FALSE) and binom.test.
# Run from the repository root: Rscript tests/oracle/proportions.R
out <- "tests/oracle/data"
cases <- rbind(c(0, 5), c(5, 5), c(1, 22), c(17, 18), c(13, 14), c(102, 122), c(170, 181),
               c(49, 53), c(1, 1), c(0, 1), c(500, 2271), c(2270, 2271))
rows <- NULL
for (i in seq_len(nrow(cases))) {
  k <- cases[i, 1]; n <- cases[i, 2]
  w <- suppressWarnings(prop.test(k, n, correct = FALSE))$conf.int
  b <- binom.test(k, n)$conf.int
  rows <- rbind(rows, data.frame(successes = k, n = n, wilson_low = w[1], wilson_high = w[2],
                                 exact_low = b[1], exact_high = b[2]))
}
for (column in names(rows)[3:6]) rows[[column]] <- sprintf("%.17g", rows[[column]])
write.csv(rows, file.path(out, "proportions_expected.csv"), row.names = FALSE, quote = FALSE)
writeLines(R.version.string, file.path(out, "proportions_versions.txt"))
