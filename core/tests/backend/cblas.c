/* A BLAS for the test: the one function in use, with sums in double. */
void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                 const float *b, int ldb, float beta, float *c, int ldc)
{
    int i, j, l;
    for (i = 0; i < m; i++)
        for (j = 0; j < n; j++) {
            double sum = 0;
            for (l = 0; l < k; l++)
                sum += (double)(trans_a == 112 ? a[l * lda + i] : a[i * lda + l]) *
                       (trans_b == 112 ? b[j * ldb + l] : b[l * ldb + j]);
            c[i * ldc + j] = order == 101 ? (float)(alpha * sum) + (beta == 0 ? 0 : beta * c[i * ldc + j]) : 0;
        }
}
